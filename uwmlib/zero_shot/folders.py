def folder_set(name, folder, *, template):
    raise NotImplementedError
