"""lbgap: the large-batch generalization gap, reproduced table by table."""

__version__ = "0.1.0"
