"""Layer 5: runs, jobs, sweeps, SLURM jobs, reproduced tables of papers, and run status."""
