"""The nano suite: four small, synthetic tasks and the text that the nano models are pre-trained on.

    nano_knowledge  multiple choice about a fictional world, two hops   (the paper's MMLU)
    nano_math       two-step word problems, exact match                 (GSM8K)
    nano_code       signature and docstring to a body, pass@1           (HumanEval)
    nano_program    description to a list expression, pass@1            (MBPP)

Plain Python: importing this package loads neither torch nor transformers.
"""

from pkt.data.nano.corpus import KINDS, corpus
from pkt.data.nano.splits import SIZES, SPLITS, TASKS, rows

__all__ = ["KINDS", "SIZES", "SPLITS", "TASKS", "corpus", "rows"]
