"""Networks that isthmus brings: a perceptron, standardized inputs, pieces of a class cut side by side."""
