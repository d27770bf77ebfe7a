"""The rotate stage, before the pass: directions of what enters each MLP, found on a part of the text.

    gradients   a forward and a backward run: what enters and leaves each MLP, and what depends on it
    plan        which part of the text is read, in blocks
    moments     sums over tokens, block by block
    directions  bases, stability and mean effects from the sums
    degeneracy  what of a layer does nothing
    run         the stage, in shards and from where it was stopped
    results     its file, opened without torch

What is said of one place in a network on plain arrays is in `interaction`; units are in `units`.
"""
