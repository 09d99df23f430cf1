"""What needs a CUDA device: skipped where there is none, unless ``ST_GPU=require`` promises one."""
