"""Judging that needs a library which a model's text could hang, blow up or trick: in a sealed helper process.

`host` is the env worker's side, `child` the helper's, `seal` what holds it, `math_checks` and `reasoning_checks` what
it does. The helper never runs text as a program; docs/environments-builtin.md says what protects from what.
"""
