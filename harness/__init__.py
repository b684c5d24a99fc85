"""Makes a candidate run, checks it and measures it. The only package that imports pyopencl."""
