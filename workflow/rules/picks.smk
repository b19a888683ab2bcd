"""Pick the best of several variants by their scores, and adopt its checkpoint.

in:  results/<scale>/scores/, results/<scale>/checkpoints/ of the candidates
out: results/<scale>/choices/<variant>.json, results/<scale>/checkpoints/<variant>/seed<k>/
"""


rule choose_variant:
    input:
        lambda w: list(job_inputs(pick_job)(w).values()),
    output:
        choice=str(LAYOUT.pick("{variant}")),
    log:
        f"logs/choose_variant/{SCALE}/{{variant}}.log",
    wildcard_constraints:
        variant=one_of(PICKED),
    conda:
        ENVIRONMENT
    resources:
        **request("picks"),
    params:
        job=JOB,
        version=stage_version("picks"),
        settings=job_settings(pick_job),
        inputs=job_options(pick_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.picks choose {output.choice:q} {params.job}"
        " --expect {params.settings} --variant {wildcards.variant} {params.inputs}"


rule adopt_checkpoint:
    input:
        unpack(job_inputs(checkpoint_job)),
    output:
        model=directory(str(LAYOUT.checkpoint("{variant}", "{seed}") / "model")),
        curves=str(LAYOUT.checkpoint("{variant}", "{seed}") / "curves.csv"),
        record=str(LAYOUT.checkpoint_record("{variant}", "{seed}")),
    log:
        f"logs/adopt_checkpoint/{SCALE}/{{variant}}/seed{{seed}}.log",
    wildcard_constraints:
        variant=one_of(PICKED),
    conda:
        ENVIRONMENT
    resources:
        **request("picks"),
    params:
        job=JOB,
        version=stage_version("picks"),
        settings=job_settings(checkpoint_job),
        folder=subpath(output.record, parent=True),
        inputs=job_options(checkpoint_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.picks adopt {params.folder:q} {params.job} --expect {params.settings}"
        " --variant {wildcards.variant} --seed {wildcards.seed} {params.inputs}"
