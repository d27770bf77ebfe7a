"""What leaves a published atlas for other tools: their formats, and labels for their graphs; no model, no torch.

An atlas is read as any reader does, through `atlas_builder.reader`; nothing of a build is needed.
"""
