"""Run -> what a person reads: the run folder, the report, the model card."""
