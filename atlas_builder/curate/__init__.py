"""Data chosen by where it lies in a range of activations, and what goes with it, on plain arrays, without torch.

After O'Mahony et al. 2024 (arXiv 2411.10019): the middle of a range shows associations that its top hides, and
samples of middling logits are those to look at, or to train on again.

    mid_range       samples within a band of the own logit of their class
    balanced        of these, as many of each label
    associations    which attributes go with activations
"""

from atlas_builder.curate.attributes import AttributeAssociations, associations
from atlas_builder.curate.samples import balanced, mid_range

__all__ = ["AttributeAssociations", "associations", "balanced", "mid_range"]
