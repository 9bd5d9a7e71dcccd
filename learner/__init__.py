"""The learner: packing, chunked scoring, the FSDP2 training step, checkpoints, weight publishing and the teacher."""
