"""What a run will take, before it is begun: ``hrvol plan``.

The flow: ``plan`` prepares the run as it would begin; ``trial`` does some real blocks with real workers, of
which ``calibrate`` makes paces; ``reads`` simulates which chunks are decoded how often; ``forecast`` knows
sizes, bytes and files; ``estimate`` puts them together; ``room`` refuses what cannot go well; ``outlook``
shows it.
"""
