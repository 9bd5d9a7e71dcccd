"""The folders beyond the standard library from which programs may import. PID 1 lists them and never imports from them.

They follow the standard library, which no package can shadow, and their .pth files are not read.
"""

import os
import site
import sys


def import_folders(python_path: list[str], of_image: bool) -> list[str]:
    """Return those of `python_path`, and with `of_image` those from which the image's own Python would import."""
    return python_path + (_site_folders() if of_image else [])


def unreadable(folders: list[str]) -> list[list[str]]:
    """Return each of `folders` that this user cannot list, with the reason."""
    failures = []
    for folder in folders:
        try:
            os.listdir(folder)
        except OSError as error:
            failures.append([folder, str(error.strerror)])
    return failures


def _site_folders() -> list[str]:
    """Return the existing package folders of this interpreter: those of its virtual environment, or of its prefixes."""
    home = os.path.dirname(os.path.dirname(sys.executable))
    folders, with_system = [], True
    if os.path.isfile(os.path.join(home, "pyvenv.cfg")):
        with open(os.path.join(home, "pyvenv.cfg"), encoding="utf-8") as file:
            settings = dict(line.replace(" ", "").strip().split("=", 1) for line in file if "=" in line)
        with_system = settings.get("include-system-site-packages") == "true"
        folders.append(f"{home}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
    if with_system:
        folders += site.getsitepackages()
    return [folder for folder in folders if os.path.isdir(folder)]
