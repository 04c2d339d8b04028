"""MindSpeed-LLM: keys, layouts, options, args, pipelines, launch flags."""
