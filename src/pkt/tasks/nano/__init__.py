"""The nano suite: four small, synthetic tasks.

nano_knowledge  multiple choice about a fictional world, two hops   (the paper's MMLU)
nano_math       two-step word problems, exact match                 (GSM8K)
nano_code       signature and docstring to a body, pass@1           (HumanEval)
nano_program    description to a list expression, pass@1            (MBPP)
"""
