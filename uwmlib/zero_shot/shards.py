def shard_set(name, folder, *, template):
    raise NotImplementedError
