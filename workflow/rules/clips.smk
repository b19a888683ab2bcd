"""Clips and plans.

in:  config alone (embedded worlds)
out: data/<scale>/clips/<dataset>/<split>/shard-*/, data/<scale>/plans/<plan>.json
"""


rule render_clips:
    output:
        rgb=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/rgb.npy",
        cam=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/cam.npy",
        depth=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/depth.npy",
        index=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/index.json",
    log:
        f"logs/render_clips/{SCALE}/{{dataset}}/{{split}}-{{number}}.log",
    benchmark:
        f"benchmarks/jobs/render_clips/{SCALE}/{{dataset}}/{{split}}-{{number}}.tsv"
    threads: asks("clips").threads
    resources:
        mem_mb=asks("clips").mem_mb,
        runtime=asks("clips").runtime,  # minutes
    params:
        version=stage_version("clips"),
        settings=lambda w: digest(CONFIG.clips_settings(w.split)),
        folder=subpath(output.index, parent=True),
    shell:
        "python -m geomem.clips render {params.folder:q} {JOB} --threads {threads}"
        " --expect {params.settings} --split {wildcards.split} --number {wildcards.number}"
        " > {log:q} 2>&1"


rule draw_plan:
    input:
        lambda w: clips(SETTINGS.plans[w.plan].split),
    output:
        plan=f"{DATA}/plans/{{plan}}.json",
    log:
        f"logs/draw_plan/{SCALE}/{{plan}}.log",
    benchmark:
        f"benchmarks/jobs/draw_plan/{SCALE}/{{plan}}.tsv"
    resources:
        mem_mb=asks("clips").mem_mb,
        runtime=asks("clips").runtime,  # minutes
    params:
        version=stage_version("clips"),
        settings=lambda w: digest(CONFIG.plan_settings(w.plan)),
        clips=lambda w: clips_folder(SETTINGS.plans[w.plan].split),
    shell:
        "python -m geomem.clips plan {output.plan:q} {JOB} --expect {params.settings}"
        " --plan {wildcards.plan} --clips {params.clips:q} > {log:q} 2>&1"
