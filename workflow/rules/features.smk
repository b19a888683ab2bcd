"""Cache the frozen teacher's features.

in:  data/<scale>/clips/, data/<scale>/plans/, the teacher's weights
out: data/<scale>/features/<teacher>/<plan>/<kind>/
"""


rule fit_basis:
    input:
        unpack(job_inputs(basis_job)),
    output:
        basis=str(LAYOUT.basis(GRAPH.teacher)),
        record=str(LAYOUT.basis_record(GRAPH.teacher)),
    log:
        f"logs/fit_basis/{SCALE}.log",
    conda:
        ENVIRONMENT
    threads: asks("features").threads
    resources:
        **request("features"),
    params:
        job=JOB,
        version=stage_version("features"),
        settings=job_settings(basis_job),
        inputs=job_options(basis_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.features fit-basis {output.basis:q} {params.job} --threads {threads}"
        " --expect {params.settings} {params.inputs}"


rule cache_features:
    input:
        unpack(job_inputs(cache_job)),
    output:
        part=str(LAYOUT.cache_part(GRAPH.teacher, "{plan}", "{kind}", "{number}")),
    log:
        f"logs/cache_features/{SCALE}/{{plan}}/{{kind}}-{{number}}.log",
    priority: 2  # the longest training waits for it
    conda:
        ENVIRONMENT
    threads: asks("features").threads
    resources:
        **request("features"),
    params:
        job=JOB,
        version=stage_version("features"),
        settings=job_settings(cache_job),
        inputs=job_options(cache_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.features cache {output.part:q} {params.job} --threads {threads}"
        " --expect {params.settings} --number {wildcards.number} --kind {wildcards.kind}"
        " {params.inputs}"
