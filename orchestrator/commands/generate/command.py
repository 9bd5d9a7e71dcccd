"""`sdpo generate RUN.yaml FOLDER [key=value …]`."""

from argparse import ArgumentParser, Namespace

from orchestrator.commands import add_overrides, location, path

NAME = "generate"
HELP = "sample and judge batches with the fixed weights of a run file's model, and record them to train on later"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN.yaml, the folder and overrides."""
    parser.add_argument("run_file", metavar="RUN.yaml", type=location)
    parser.add_argument(
        "folder", metavar="FOLDER", type=path, help="folder for the batches; a second call continues it"
    )
    add_overrides(parser)


def run(arguments: Namespace) -> int:
    """Record `steps` batches; return 0."""
    from sdpo.config.load import load_run_config
    from sdpo.errors import ConfigError

    if "=" in arguments.folder.name:
        raise ConfigError(f"FOLDER={arguments.folder}: allowed: a folder, before key=value")
    config = load_run_config(arguments.run_file, arguments.override)

    from orchestrator.commands.generate.generate import generate

    generate(config, arguments.folder)
    return 0
