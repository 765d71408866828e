"""Stages: orchestration without maths.

    extract -> [answer] -> align -> transfer -> evaluate -> report

`run(job)` of a stage writes its result into the job's folder and returns what its manifest should say. What a stage
needs is in the job; none asks the stages before it.
"""
