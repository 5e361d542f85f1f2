"""Processes that make large answers, so that Python's lock and the memory of the server are left to ingestion.

    main process                                     worker process
    plan, fetch ─► memory file: values, message ──┐
    socket:  JOB (place of the message, the file) ├─► plan again from what the message holds,
             FURTHER (the same, another file)     │   functions, consolidation, format, gzip
             ◄── FURTHER (targets functions ask for), HEAD, CHUNK …, END or ERROR

A worker works on one query at a time. It waits in its writes while the main process doesn't read, and ends when
the socket does. A query that takes too long, or whose client is gone, ends with its worker: nothing else surely stops numpy.
"""
