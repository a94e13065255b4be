"""seqrec: given what a person did so far, which item comes next?"""

__version__ = "0.1.0"
