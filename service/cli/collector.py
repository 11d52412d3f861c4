"""How the long-lived processes use Python's cycle collector."""

import gc

#: Allocations between two looks at the youngest objects, and so on; Python's own are 700, 10 and 10.
_THRESHOLDS = (50_000, 20, 100)


def look_less_often() -> None:
    """This function will let the cycle collector look less often, and no more at what the start has made.

    What a request makes dies with it by reference counts alone; looking for cycles all the time took 6 % of the
    processor time of accepting a job.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
