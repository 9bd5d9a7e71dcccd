"""Everything that a run reads and checks before it starts: tasks, model folder, environments, the machine."""
