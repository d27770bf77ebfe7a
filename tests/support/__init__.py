"""What tests share: miniature models and atlases, browsers, slow references, planted behaviours."""
