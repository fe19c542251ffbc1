"""Programs in Python that tests of several rooms run."""

#: Lives on while parts of it need too much memory, one after the other. When all of a container
#: goes at once, an engine may miss why (Docker 20.10 with cgroup v1 does now and then).
SURVIVOR = """
import os, time
while True:
    if os.fork() == 0:
        hoard = [bytearray(1 << 20) for _ in range(500)]
        os._exit(0)
    os.wait()
    time.sleep(0.1)
"""
