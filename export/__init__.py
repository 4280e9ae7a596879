"""Room for taking final networks out of the project; installed as ``pnas_fast.export``."""
