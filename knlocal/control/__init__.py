"""The reconciler framework: work queues, workers, owner references, garbage collection."""
