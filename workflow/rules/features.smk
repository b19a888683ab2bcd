"""Cache the frozen teacher's features.

in:  data/<scale>/clips/, data/<scale>/plans/, the teacher's weights
out: data/<scale>/features/<teacher>/<plan>/<kind>/
"""


rule fit_basis:
    input:
        clips=names(GRAPH.shards(SETTINGS.plans[BASIS_PLAN].split)),
        plan=str(LAYOUT.plan(BASIS_PLAN)),
        weights=str(GRAPH.weights),
    output:
        basis=str(LAYOUT.basis(GRAPH.teacher)),
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
        settings=JOBS.features(BASIS_PLAN).digest,
        clips=lambda w: str(GRAPH.folder(SETTINGS.plans[BASIS_PLAN].split)),
    shell:
        "python -m geomem.features fit-basis {output.basis:q} {params.job} --threads {threads}"
        " --expect {params.settings} --plan {input.plan:q} --clips {params.clips:q}"
        " --weights {input.weights:q} > {log:q} 2>&1"


rule cache_features:
    input:
        unpack(job_inputs(cache_job)),
    output:
        part=str(LAYOUT.cache_part(GRAPH.teacher, "{plan}", "{kind}", "{number}")),
    log:
        f"logs/cache_features/{SCALE}/{{plan}}/{{kind}}-{{number}}.log",
    benchmark:
        f"benchmarks/jobs/cache_features/{SCALE}/{{plan}}/{{kind}}-{{number}}.tsv"
    conda:
        ENVIRONMENT
    priority: 2  # the longest training waits for it
    threads: asks("features").threads
    resources:
        **request("features"),
    params:
        job=JOB,
        version=stage_version("features"),
        settings=job_settings(cache_job),
        inputs=job_options(cache_job),
    shell:
        "python -m geomem.features cache {output.part:q} {params.job} --threads {threads}"
        " --expect {params.settings} --number {wildcards.number} --kind {wildcards.kind}"
        " {params.inputs} > {log:q} 2>&1"
