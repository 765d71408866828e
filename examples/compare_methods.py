"""Compare methods over seeds, and ask of the difference to plain fine-tuning whether it is more than noise.

python examples/compare_methods.py [key=value ...]
"""

import sys

import pkt


def main() -> None:
    """Run every method with every seed, and print the table and each job's share of the gap."""
    found = pkt.sweep("method=sft,kd,semalign_joint", "seed=0,1", "tracker=none", *sys.argv[1:])
    print(found.table)  # ± over rows and seeds
    for job in found.results:
        seconds = sum(stage["seconds"] for stage in job.stages if not stage["reused"])
        print(job.request["method"]["name"], job.request["seed"], f"{seconds:.0f} s computed in this job")
    print("the page, with paired intervals:", found.report)


if __name__ == "__main__":
    main()
