def plot_step(*a, **k): raise NotImplementedError
