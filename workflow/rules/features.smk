"""The frozen teacher: made or fetched, measured, and its features cached.

in:  data/<scale>/clips/, data/<scale>/plans/, weights/<teacher>/ (tracked, where the teacher is small)
out: data/<scale>/teacher/, data/<scale>/features/<teacher>/<plan>/<kind>/, results/<scale>/teacher.json
"""


localrules:
    download_teacher,


rule train_teacher:
    input:
        clips=clips(SETTINGS.teacher.train_split),
    output:
        weights=f"{DATA}/teacher/model.safetensors",
        training=f"{DATA}/teacher/training.json",
    log:
        f"logs/train_teacher/{SCALE}.log",
    benchmark:
        f"benchmarks/jobs/train_teacher/{SCALE}.tsv"
    conda:
        ENVIRONMENT
    threads: asks("features", "train_teacher").threads
    resources:
        **request("features", "train_teacher"),
    params:
        job=JOB,
        version=stage_version("features"),
        settings=digest(CONFIG.teacher_settings()),
        clips=lambda w, input: split_folder(input.clips),
        state=f"{DATA}/training_state/teacher",
    shell:
        "python -m geomem.features train-teacher {output.weights:q} {params.job} --threads {threads}"
        " --expect {params.settings} --clips {params.clips:q} --state {params.state:q}"
        " > {log:q} 2>&1"


rule download_teacher:
    output:
        weights="data/weights/{name}/model.safetensors",
    log:
        "logs/download_teacher/{name}.log",
    benchmark:
        "benchmarks/jobs/download_teacher/{name}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=120,  # minutes
    params:
        repository=SETTINGS.teacher.download,
        revision=SETTINGS.teacher.revision,
        sha256=SETTINGS.teacher.sha256,
    shell:
        "HF_HUB_OFFLINE=0 python -m geomem.features download {output.weights:q}"
        " --repository {params.repository:q} --revision {params.revision:q}"
        " --sha256 {params.sha256:q} > {log:q} 2>&1"


rule evaluate_teacher:
    input:
        clips=clips(SETTINGS.teacher.validation_split),
        weights=WEIGHTS,
    output:
        metrics=f"{RESULTS}/teacher.json",
    log:
        f"logs/evaluate_teacher/{SCALE}.log",
    benchmark:
        f"benchmarks/jobs/evaluate_teacher/{SCALE}.tsv"
    conda:
        ENVIRONMENT
    threads: asks("features").threads
    resources:
        **request("features"),
    params:
        job=JOB,
        version=stage_version("features"),
        settings=digest(CONFIG.teacher_settings()),
        clips=lambda w, input: split_folder(input.clips),
    shell:
        "python -m geomem.features evaluate-teacher {output.metrics:q} {params.job} --threads {threads}"
        " --expect {params.settings} --clips {params.clips:q} --weights {input.weights:q}"
        " > {log:q} 2>&1"


rule fit_basis:
    input:
        clips=lambda w: clips(SETTINGS.plans[SETTINGS.features.basis_plan].split),
        plan=f"{DATA}/plans/{SETTINGS.features.basis_plan}.json",
        weights=WEIGHTS,
    output:
        basis=f"{TEACHER}/basis.safetensors",
    log:
        f"logs/fit_basis/{SCALE}.log",
    benchmark:
        f"benchmarks/jobs/fit_basis/{SCALE}.tsv"
    conda:
        ENVIRONMENT
    threads: asks("features").threads
    resources:
        **request("features"),
    params:
        job=JOB,
        version=stage_version("features"),
        settings=digest(CONFIG.features_settings(SETTINGS.features.basis_plan)),
        clips=lambda w, input: split_folder(input.clips),
    shell:
        "python -m geomem.features fit-basis {output.basis:q} {params.job} --threads {threads}"
        " --expect {params.settings} --plan {input.plan:q} --clips {params.clips:q}"
        " --weights {input.weights:q} > {log:q} 2>&1"


rule cache_features:
    input:
        clips=lambda w: clips(SETTINGS.plans[w.plan].split),
        plan=f"{DATA}/plans/{{plan}}.json",
        weights=WEIGHTS,
        basis=rules.fit_basis.output.basis,
    output:
        part=f"{TEACHER}/{{plan}}/{{kind}}/part-{{number}}.json",
    log:
        f"logs/cache_features/{SCALE}/{{plan}}/{{kind}}-{{number}}.log",
    benchmark:
        f"benchmarks/jobs/cache_features/{SCALE}/{{plan}}/{{kind}}-{{number}}.tsv"
    conda:
        ENVIRONMENT
    threads: asks("features").threads
    resources:
        **request("features"),
    params:
        job=JOB,
        version=stage_version("features"),
        settings=lambda w: digest(CONFIG.features_settings(w.plan)),
        clips=lambda w, input: split_folder(input.clips),
    shell:
        "python -m geomem.features cache {output.part:q} {params.job} --threads {threads}"
        " --expect {params.settings} --number {wildcards.number} --kind {wildcards.kind}"
        " --plan {input.plan:q} --clips {params.clips:q} --weights {input.weights:q}"
        " --basis {input.basis:q} > {log:q} 2>&1"
