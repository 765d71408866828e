"""Cut a student out of a teacher by depth, ask what the training will take, and heal it.

python examples/cut_student.py [key=value ...]       # model.teacher.checkpoint=... for a teacher of your own
"""

import sys

import pkt


def main() -> None:
    """Plan, run, and compare the cut student with what became of it."""
    words = ["model=nano-cut", "optim.steps=100", "tracker=none", *sys.argv[1:]]
    plan = pkt.plan(*words).plan
    lacking = plan["lacking"]
    print("nothing is lacking" if not lacking else "\n".join(lacking))
    result = pkt.run(*words)
    for role, scores in result.scores.items():
        print(f"{role:<12}", {task: round(score["value"], 3) for task, score in scores.items()})
    for task, share in (result.gap_closed or {}).items():
        print(task, share)


if __name__ == "__main__":
    main()
