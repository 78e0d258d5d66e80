"""How far apart two domains are, as measured by classifiers."""
