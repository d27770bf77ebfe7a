"""Similar behaviours of other units, and the map: cosines and neighbours on plain arrays, and the stage."""
