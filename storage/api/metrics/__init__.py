"""What ``/metrics`` shows (ADR 23): ``requests`` counts in each process, ``cluster`` has figures of the whole cluster.

``seats`` holds the counts of the processes of one machine together. ``figures`` lists the metrics of the cluster, and
``families`` makes them. ``exposition`` puts everything into one answer.
"""
