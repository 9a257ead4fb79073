"""placeholder"""
from pathlib import Path
def write_run_report(config, loader, backbone, log, device):
    return Path(config.output_dir)/"report.html"
