"""Stages: orchestration without maths.

    extract -> align -> transfer -> evaluate -> report

Each module has `key(session)`, a content key made of everything that its result depends on, and a function
that makes sure the result is in the store.
"""
