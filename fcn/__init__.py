"""Fully convolutional networks on `convarith`'s kernels, without a framework at run time."""
