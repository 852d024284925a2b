"""Jobs of many images: planned once, run in shards by any number of processes, and merged."""
