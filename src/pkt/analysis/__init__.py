"""What is inside two models: numbers per layer, with their errors over rows. Models and rows in, tensors out.

resolution    do a layer's outputs survive a decomposition over a basis of tokens?
attribution   which layers matter for the answers, at which interface, and how far do the interfaces agree?
rows          which rows are looked at, and the mean over them with its standard error
"""
