def write(options, results):
    raise NotImplementedError
