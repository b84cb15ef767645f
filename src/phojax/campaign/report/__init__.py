"""The folder of a screen as one HTML page that needs nothing else."""

from phojax.campaign.report.folder import ScreenFolder, read_folder
from phojax.campaign.report.page import report_page, write_report

__all__ = ["ScreenFolder", "read_folder", "report_page", "write_report"]
