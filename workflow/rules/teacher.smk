"""The frozen teacher: made, and measured.

in:  data/<scale>/clips/, weights/<teacher>/ (tracked, where the teacher is small)
out: data/<scale>/teacher/, results/<scale>/teacher.json
"""


rule train_teacher:
    input:
        clips=names(GRAPH.shards(SETTINGS.teacher.train_split)),
    output:
        weights=str(LAYOUT.trained_teacher),
        training=str(LAYOUT.trained_teacher.with_name("training.json")),
    log:
        f"logs/train_teacher/{SCALE}.log",
    conda:
        ENVIRONMENT
    threads: asks("teacher", "train").threads
    resources:
        **request("teacher", "train"),
    params:
        job=JOB,
        version=stage_version("teacher"),
        settings=JOBS.teacher().digest,
        clips=lambda w: str(GRAPH.folder(SETTINGS.teacher.train_split)),
        state=f"{LAYOUT.data}/training_state/teacher",
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.teacher train {output.weights:q} {params.job} --threads {threads}"
        " --expect {params.settings} --clips {params.clips:q} --state {params.state:q}"


rule evaluate_teacher:
    input:
        unpack(job_inputs(teacher_job)),
    output:
        metrics=str(LAYOUT.teacher_metrics),
    log:
        f"logs/evaluate_teacher/{SCALE}.log",
    conda:
        ENVIRONMENT
    threads: asks("teacher").threads
    resources:
        **request("teacher"),
    params:
        job=JOB,
        version=stage_version("teacher"),
        settings=job_settings(teacher_job),
        inputs=job_options(teacher_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.teacher evaluate {output.metrics:q} {params.job} --threads {threads}"
        " --expect {params.settings} {params.inputs}"
