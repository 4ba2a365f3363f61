"""The escape suite on real kernels of distributions, each in a virtual machine; see README.md."""
