"""distforget: did the model really forget, when similar samples stay in the training data?"""

__version__ = "0.1.0"
