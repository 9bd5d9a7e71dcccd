"""`sdpo report`: one page that shows what happened in one run or several."""
