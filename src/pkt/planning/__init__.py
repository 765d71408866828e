"""What a request will take, before any weight is read: `pkt plan`.

    config.json of both models -> Shape ─┐
    rows, or an assumption ----> Counts ─┼─> stages: tokens, FLOPs, memory, disk ──> seconds, what does not fit
    composed request ----------> Wanted ─┘

All of it is a closed form of what the code does now. Nothing here imports torch but where the request's own rows and
the keys of its results are looked up.
"""
