"""The interaction basis of a network, its edges and modules, and counts of its degeneracy, on plain arrays.

After Bushnaq et al. 2024 (arXiv 2405.10927, and 2405.10928 for the local version), whose abstracts name
the three sources of degeneracy and the basis; formulas and counts are our derivation. All arrays are torch
tensors in float64, examples as rows; means are taken away, and no column of ones is added.

    basis, principal       directions of one place in the network
    pull                   what follows a place, as a matrix at that place
    edges, edges_needed    how directions of one place act on those of the next
    modules                groups of directions that interact mostly with each other
    synchronised, effective_parameters    what of the parameters does nothing
"""

from atlas_builder.interaction.degeneracy import effective_parameters, synchronised
from atlas_builder.interaction.directions import Basis, basis, principal
from atlas_builder.interaction.edges import edges, edges_needed, pull
from atlas_builder.interaction.modules import Modules, modules

__all__ = [
    "Basis",
    "Modules",
    "basis",
    "edges",
    "edges_needed",
    "effective_parameters",
    "modules",
    "principal",
    "pull",
    "synchronised",
]
