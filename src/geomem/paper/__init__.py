"""Stage `paper`: numbers become tables, figures and the PDF."""
