"""`sdpo doctor`: what of this machine a run would stumble over, in plain words, each with its mend.

A check is two functions: one *gathers* facts (it touches the machine and does nothing else), one *judges* them (it is
pure, so that recorded facts of any machine can be judged). `finding` runs them, each within its own deadline.
"""
