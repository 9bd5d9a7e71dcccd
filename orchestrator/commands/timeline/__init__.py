"""`sdpo timeline`: write what every actor did when, for Perfetto."""
